package daemon

import "example.com/bad/config"

func set() { config.Exported = 2 }
