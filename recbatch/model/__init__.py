"""The network that turns histories into user vectors and attributes into item vectors, its losses and its artifact."""
