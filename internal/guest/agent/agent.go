package agent

// Op says what a Request asks for.
type Op string

// The operations of the agent.
const (
	Ping     Op = "ping"
	Exec     Op = "exec"     // run Args to its end; Out has stdout and stderr
	Spawn    Op = "spawn"    // start Args, output to the console; PID answers
	Wait     Op = "wait"     // wait Seconds at most for the end of the spawned PID: Exit
	Signal   Op = "signal"   // send Signal to the spawned PID; with Seconds wait for its end
	Put      Op = "put"      // write Data to Path; with Sync for good
	Get      Op = "get"      // read Path
	Glob     Op = "glob"     // names that match Path, one a line
	Insmod   Op = "insmod"   // load the module files Args in order, with Data as parameters of the last
	Rmmod    Op = "rmmod"    // unload the module Path
	Mount    Op = "mount"    // Args: source, target, type, options
	Umount   Op = "umount"   // Path
	Fill     Op = "fill"     // write the pattern Seed to Path at Off, Len bytes in pieces of Size
	Check    Op = "check"    // read it back and compare
	Direct   Op = "direct"   // read Size bytes of Path past the page cache
	SGIO     Op = "sgio"     // send the CDB Data to the device Path by SG_IO, with room for Size bytes, Seconds at most: Out, and Exit is the SCSI status
	Expire   Op = "expire"   // SGIO Jobs times at once: each of them has to run out of time
	Reset    Op = "reset"    // SG_SCSI_RESET of the device Path, without escalation; Size 3: of its host
	Log      Op = "log"      // the kernel's log
	Shell    Op = "shell"    // run Args on the console's terminal to its end, without a bound
	Work     Op = "work"     // start Jobs verifying writers on Path (see Worked)
	Worked   Op = "worked"   // how they are: a Progress; with Stop after they have ended
	Relay    Op = "relay"    // join the character devices Path and Args[0], until one of them ends
	Poweroff Op = "poweroff" // answer, then power off
)

// Request is one line to the guest.
type Request struct {
	ID      uint64 // comes back in the Response
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
	Create  bool     `json:",omitempty"` // Fill makes the file
	Jobs    int      `json:",omitempty"` // writers of Work
	Stop    bool     `json:",omitempty"` // Worked ends them first
	Seconds int      `json:",omitempty"` // bound on Exec (0: 60) and Signal
	PID     int      `json:",omitempty"`
	CPU     int      `json:",omitempty"` // Fill and Check on this one, from 1 on; 0: any
	Repeat  int      `json:",omitempty"` // Fill and Check so many times; 0: once
	Signal  int      `json:",omitempty"`
	// NoSync spawns Args with the system calls that make data stable switched
	// off: they succeed and do nothing.
	NoSync bool `json:",omitempty"`
}

// Response is one line from the guest.
type Response struct {
	ID   uint64
	Out  []byte `json:",omitempty"`
	PID  int    `json:",omitempty"`
	Exit int    `json:",omitempty"`
	Err  string `json:",omitempty"`
}

// Ready is the line that the agent sends once, when it listens.
const Ready = `{"Out":"cmVhZHk="}`

// Program is the agent's own file; DoArg, and a Request, have it do that one alone, as a
// program that Spawn starts beside others.
const (
	Program = "/init"
	DoArg   = "do"
)

// LifeParam is the parameter of the kernel's command line that says after how many
// seconds the guest powers itself off.
const LifeParam = "vtgt.life"

// PortParam is the parameter that says which device the agent's line is, where it is
// not the machine's second serial line.
const PortParam = "vtgt.port"
