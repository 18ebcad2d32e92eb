"""The JSON of circuit-tracer, Neuronpedia and others, written and read."""
