package libvirt

import (
	_ "example.com/bad/attach"
	_ "example.com/bad/attach/vsphere"
)
