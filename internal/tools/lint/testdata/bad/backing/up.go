package backing

import _ "example.com/bad/scsi"
