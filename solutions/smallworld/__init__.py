"""The embedded world: a small language, its text with ground-truth labels, its models and their SAEs.

Our own code generates the text (`corpus`), so for every token it is known which concepts hold there.
`build` remakes the tokenizer, the models, the SAEs and the quality table from seeds; `artifacts` finds
the finished files and checks that they are whole. Nothing heavy is imported here.
"""
