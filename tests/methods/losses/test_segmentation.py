"""The loss that masks teach by: MONAI's Dice, and nothing of what nobody annotated."""

from __future__ import annotations

import torch
from monai.losses import MaskedDiceLoss

from napari_medcl.data.volume import IGNORE
from napari_medcl.methods.losses.segmentation import segmentation_loss


def test_what_nobody_annotated_has_no_part_in_the_loss() -> None:
    logits = torch.randn(2, 3, 6, 6)
    labels = torch.randint(0, 3, (2, 6, 6))
    labels[:, :3] = IGNORE
    other = logits.clone()
    other[:, :, :3] = torch.randn(2, 3, 3, 6)
    one, two = segmentation_loss(logits, labels), segmentation_loss(other, labels)
    torch.testing.assert_close(one, two)
    half = segmentation_loss(logits[:, :, 3:], labels[:, 3:])
    torch.testing.assert_close(one, half)


def test_the_loss_is_the_dice_of_monai() -> None:
    logits, labels = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 6, 6))
    labels[:, :3] = IGNORE
    truth = torch.nn.functional.one_hot(torch.where(labels == IGNORE, 0, labels), 3).movedim(-1, 1)
    theirs = MaskedDiceLoss(include_background=False, batch=True)(logits.softmax(1), truth, (labels != IGNORE)[:, None])
    torch.testing.assert_close(segmentation_loss(logits, labels)["dice"], theirs)


def test_nothing_annotated_is_no_trouble() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    terms = segmentation_loss(logits, torch.full((1, 4, 4), IGNORE))
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert total.isfinite()
    assert logits.grad.isfinite().all()
