class PreflightReport: ...


def preflight(*a, **k):
    raise NotImplementedError
