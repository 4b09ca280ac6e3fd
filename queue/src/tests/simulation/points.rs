//! Scripted histories, cut at every step.
