"""imageclf: labelled images in, a trained, evaluated, exported and registered classifier out."""
