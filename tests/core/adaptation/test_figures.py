"""Figures of an epoch: means of the notes, then nothing."""

import torch

from tasks.core.adaptation.figures import Figures


def test_figures_are_means_of_the_notes_since_they_were_last_taken() -> None:
    figures = Figures()
    assert figures.taken() == {}
    figures.note(loss=torch.tensor(1.0, requires_grad=True), share=torch.tensor(0.25))
    figures.note(loss=torch.tensor(4.0))
    assert figures.taken() == {"loss": 2.5, "share": 0.25}
    figures.note(share=torch.tensor(1.0))
    assert figures.taken() == {"share": 1.0}
