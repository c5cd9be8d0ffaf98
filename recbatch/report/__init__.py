"""What people look at: progress, the summary of a run, one user's recommendations."""
