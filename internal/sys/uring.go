package sys

// UringParams is struct io_uring_params of linux/io_uring.h.
type UringParams struct {
	SQEntries, CQEntries      uint32
	Flags                     uint32
	SQThreadCPU, SQThreadIdle uint32
	Features                  uint32
	WQFD                      uint32
	_                         [3]uint32
	SQOff                     UringSQOffsets
	CQOff                     UringCQOffsets
}

// UringSQOffsets is struct io_sqring_offsets.
type UringSQOffsets struct {
	Head, Tail, RingMask, RingEntries, Flags, Dropped, Array, _ uint32
	UserAddr                                                    uint64
}

// UringCQOffsets is struct io_cqring_offsets.
type UringCQOffsets struct {
	Head, Tail, RingMask, RingEntries, Overflow, CQEs, Flags, _ uint32
	UserAddr                                                    uint64
}

// UringWaitArg is struct io_uring_getevents_arg. TS is the address of a Timespec,
// a relative time; see SetTimeout.
type UringWaitArg struct {
	Sigmask   uint64
	SigmaskSz uint32
	_         uint32
	TS        uint64
}

// Flags and features of io_uring_setup and io_uring_enter.
const (
	UringSetupCQSize       = 1 << 3
	UringSetupClamp        = 1 << 4
	UringSetupTaskrunFlag  = 1 << 9
	UringSetupSingleIssuer = 1 << 12
	UringSetupDeferTaskrun = 1 << 13

	UringFeatSingleMmap = 1 << 0
	UringFeatNoDrop     = 1 << 1
	UringFeatExtArg     = 1 << 8
	UringFeatCQESkip    = 1 << 11

	UringEnterGetEvents = 1 << 0
	UringEnterExtArg    = 1 << 3

	UringOffSQRing = 0
	UringOffSQEs   = 0x10000000
)
