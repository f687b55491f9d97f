"""fairseq's search for the module that first gave NaN or Inf, on a current torch."""

from fairseq import nan_detector


def install() -> None:
    """Let the detector pass a module that returns a dictionary, as every fairseq encoder does.

    Otherwise it ends itself, in `StopIteration`, where the gradients are not finite.
    """
    nan_detector.NanDetector.add_hooks = add_hooks


def add_hooks(self, module) -> None:
    """As fairseq's, with backward hooks that do not look for a tensor in the module's result."""
    if self.forward:
        self.fhooks.append(module.register_forward_hook(self.fhook_fn))
    if self.backward:
        self.bhooks.append(module.register_full_backward_hook(self.bhook_fn))
