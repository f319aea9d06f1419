"""A question into a traced answer: retrieve, decide, run tools, answer, check, and try again with the checker's reason.

agent = Agent(VLMBackend(vlm), fundus_tools(), AgentOptions())
traced = agent.run(Question("q1", "Where do hard exudates occur?", images, options, statements, "OD"))
"""

from clinalign.agent.check import Sentence, Verdict, check_answer, check_text
from clinalign.agent.loop import Agent, Question, Traced, resolve
from clinalign.agent.options import AgentOptions
from clinalign.agent.tools import Fact, Tool, ToolOutput, run_tool

__all__ = [
    "Agent",
    "AgentOptions",
    "Fact",
    "Question",
    "Sentence",
    "Tool",
    "ToolOutput",
    "Traced",
    "Verdict",
    "check_answer",
    "check_text",
    "resolve",
    "run_tool",
]
