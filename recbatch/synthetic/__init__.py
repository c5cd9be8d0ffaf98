"""A made-up shop: a behaviour log and a catalogue of any size, with planted faults whose number is known."""
