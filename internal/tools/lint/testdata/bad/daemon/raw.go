package daemon

import _ "golang.org/x/sys/unix"
