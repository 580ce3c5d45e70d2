"""Train pictures with Keras 3 and its `fit`, save what was trained in each format, and predict with it."""
