"""The suite in an image, from outside: run it there, read its report, compare it with an older one."""
