//! Machines as Linux sandboxes on this box
