"""The course's own loop (Parts 4 and 5), on the files that torchvision would have downloaded.

As the course has it: each image goes through ToTensor and Normalize on its own each time it is
read, the loss is fetched with .item() batch by batch, and every epoch ends with a validation pass
that averages the accuracies of the batches. The workers stay at the DataLoader's default of none.
"""

import sys

import torch
from torch import nn, optim
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms


def main(epochs: int, seed: int) -> None:
    torch.manual_seed(seed)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    images = datasets.FashionMNIST(".", download=False, train=True, transform=transform)
    train_set, val_set = random_split(images, [54_000, 6_000])
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=64, shuffle=True)

    model = nn.Sequential(
        nn.Linear(784, 256),
        nn.ReLU(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
        nn.LogSoftmax(dim=1),
    )
    criterion = nn.NLLLoss()
    optimizer = optim.Adam(model.parameters(), lr=0.003)
    for epoch in range(1, epochs + 1):
        running_loss = 0.0
        for batch, labels in train_loader:
            optimizer.zero_grad()
            log_ps = model(batch.view(batch.shape[0], -1))
            loss = criterion(log_ps, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()

        val_loss, accuracy = 0.0, 0.0
        with torch.no_grad():
            for batch, labels in val_loader:
                log_ps = model(batch.view(batch.shape[0], -1))
                val_loss += criterion(log_ps, labels).item()
                top_class = torch.exp(log_ps).topk(1, dim=1).indices
                equals = top_class == labels.view(*top_class.shape)
                accuracy += torch.mean(equals.float()).item()
        print(
            f"{epoch}/{epochs}  training loss {running_loss / len(train_loader):.3f}"
            f"  val loss {val_loss / len(val_loader):.3f}"
            f"  val accuracy {accuracy / len(val_loader):.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
