"""The phantom study in parts: settings and rules, corpus, jobs, the logit-shift control, tables, the page."""
