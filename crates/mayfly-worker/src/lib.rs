//! Our process in a machine: PID 1, the claude child, the outbox, the collected result
