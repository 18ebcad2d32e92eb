"""Reading and writing the JSON of circuit-tracer, Neuronpedia and others."""
