"""A job and the plans made from it. Pure: nothing here starts a process or opens a socket."""
