"""Lightning over tensors in memory, with everything switched off that is not training.

Its fastest settings: barebones (no logger, checkpoints, bar or summary), whole batches gathered
from the tensors by one index, torch's fused Adam. Compiling the network gained nothing when tried.
"""

import sys

import lightning
import torch
from arrays import load_split
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10)
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003, fused=True)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def on_validation_epoch_start(self) -> None:
        self.loss = self.right = self.images = 0

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        images, labels = batch
        logits = self.network(images)
        self.loss += nn.functional.cross_entropy(logits, labels, reduction="sum")
        self.right += (logits.argmax(dim=1) == labels).sum()
        self.images += len(labels)

    def on_train_epoch_end(self) -> None:
        print(
            f"{self.current_epoch + 1}/{self.trainer.max_epochs}"
            f"  val loss {self.loss / self.images:.4f}"
            f"  val accuracy {self.right / self.images:.2%}",
            flush=True,
        )


def loader(split: str, batch_size: int, shuffle: bool) -> DataLoader:
    """A loader whose sampler draws whole batches: one indexing of the tensors per batch."""
    data = TensorDataset(*map(torch.from_numpy, load_split(split)))
    order = RandomSampler(data) if shuffle else SequentialSampler(data)
    return DataLoader(data, sampler=BatchSampler(order, batch_size, False), batch_size=None)


def main(epochs: int, seed: int) -> None:
    lightning.seed_everything(seed)
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", barebones=True)
    trainer.fit(Classifier(), loader("train", 64, True), loader("val", 1000, False))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
