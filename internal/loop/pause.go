package loop

import "time"

// pause lets some other thread go on; for waits that hardly ever happen.
func pause() { time.Sleep(10 * time.Microsecond) }
