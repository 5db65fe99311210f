// Package agent is the line protocol between a test and the init program of its
// guest: one JSON object a line each way over a serial port, one request at a time.
package agent

// Op says what a Request asks for.
type Op string

// The operations of the agent.
const (
	Ping     Op = "ping"
	Exec     Op = "exec"     // run Args to its end; Out has stdout and stderr
	Spawn    Op = "spawn"    // start Args, output to the console
	Put      Op = "put"      // write Data to Path
	Get      Op = "get"      // read Path
	Glob     Op = "glob"     // names that match Path, one a line
	Insmod   Op = "insmod"   // load the module files Args in order, with Data as parameters of the last
	Mount    Op = "mount"    // Args: source, target, type, options
	Umount   Op = "umount"   // Path
	Fill     Op = "fill"     // write the pattern Seed to Path at Off, Len bytes in pieces of Size
	Check    Op = "check"    // read it back and compare
	Poweroff Op = "poweroff" // answer, then power off
)

// Request is one line to the guest.
type Request struct {
	Op      Op
	Args    []string `json:",omitempty"`
	Path    string   `json:",omitempty"`
	Data    []byte   `json:",omitempty"`
	Seed    uint64   `json:",omitempty"`
	Off     int64    `json:",omitempty"` // bytes
	Len     int64    `json:",omitempty"` // bytes
	Size    int      `json:",omitempty"` // bytes
	Direct  bool     `json:",omitempty"` // O_DIRECT
	Sync    bool     `json:",omitempty"` // fsync at the end
	Seconds int      `json:",omitempty"` // bound on Exec; 0: 60
}

// Response is one line from the guest.
type Response struct {
	Out  []byte `json:",omitempty"`
	Exit int    `json:",omitempty"`
	Err  string `json:",omitempty"`
}

// Ready is the line that the agent sends once, when it listens.
const Ready = `{"Out":"cmVhZHk="}`
