//! The worker as a whole, against an orchestrator in the same process: everything on its side is real, the
//! socket, the processes and git included; `claude` is a shell script, and where it can be had the CLI itself.

mod as_pid_1;
mod away;
mod beside_the_work;
mod checkpoints;
mod exact;
mod host;
mod left_out;
mod modes;
mod real_cli;
mod routes;
mod runs;
mod taken_in;
mod taken_up;
mod the_library;
mod the_link;
mod the_work;
