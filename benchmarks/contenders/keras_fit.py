"""Keras 3 with model.fit over arrays in memory, on the backend that the command line names.

The loss is softmax cross-entropy on logits, which equals NLL on log-softmax. Validation runs in
batches of 1,000, as large ones are faster.
"""

import os
import sys

from arrays import load_split

# What was fastest of what each backend allows. On JAX and TensorFlow: 50 steps per call into the
# compiled function (a step per call is a fifth slower on JAX, half or more on TensorFlow; 100 and
# over gain nothing); XLA compiles both. On torch, a step per call is the only choice and Keras
# runs it eagerly by default. Compiled, its epochs are shorter after a start that is half a minute
# or more longer: that is a trade, so both are measured.
FASTEST = {
    "jax": {"steps_per_execution": 50},
    "tensorflow": {"steps_per_execution": 50, "jit_compile": True},
    "torch": {},
    "torch-compiled": {"jit_compile": True},
}


def main(choice: str, epochs: int, seed: int) -> None:
    os.environ["KERAS_BACKEND"] = choice.removesuffix("-compiled")
    import keras
    from keras import layers

    def report(epoch: int, logs: dict[str, float]) -> None:
        print(f"{epoch + 1}/{epochs}  val accuracy {logs['val_accuracy']:.2%}", flush=True)

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(256, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(0.003),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **FASTEST[choice],
    )
    model.fit(
        *load_split("train"),
        batch_size=64,
        epochs=epochs,
        validation_data=load_split("val"),
        validation_batch_size=1000,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report)],
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
