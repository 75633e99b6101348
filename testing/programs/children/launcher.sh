#!/bin/sh
# Starts another program without exec, stays its parent, and passes on its exit code.
# Usage: launcher.sh PROGRAM [ARGUMENT]...
"$@"
status=$?
exit "$status"
