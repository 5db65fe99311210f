package daemon

import (
	"strings"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
)

// identity is what initiators know disk c by: as configured, else as kept.
func identity(c *config.Disk, kept state.Disk) state.Disk {
	id := kept
	if c.Serial != "" {
		id.Serial = c.Serial
	}
	if c.NAA != "" {
		id.NAA = strings.ToLower(c.NAA)
	}
	return id
}
