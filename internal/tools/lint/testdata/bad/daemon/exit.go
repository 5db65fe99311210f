package daemon

import "os"

func die() { os.Exit(1) }
