"""Documents to train on: texts, datasets on the Hub, samples of the model itself."""
