package vring

import "fmt"

// A Kind says which rule a driver broke.
type Kind uint8

// The rules.
const (
	AvailJump      Kind = iota + 1 // avail.idx is further ahead than the ring is long
	HeadRange                      // an available entry names no descriptor of the ring
	HeadBusy                       // an available entry names a request that is in flight
	NextRange                      // a descriptor's next lies outside its table
	Loop                           // a chain longer than its table: it loops
	TooLong                        // more descriptors than this device takes, or more pieces
	TooBig                         // more than 2^32 bytes in one chain
	Empty                          // a buffer of no bytes
	Order                          // a buffer to read follows one to write
	Address                        // a buffer outside the memory map, or one that wraps
	IndirectOff                    // an indirect table that was not negotiated
	IndirectNext                   // an indirect descriptor whose chain goes on
	IndirectNested                 // an indirect table in an indirect table
	IndirectLength                 // an indirect table whose length is no multiple of 16, or 0
	InflightRecord                 // the record of requests in flight contradicts itself
)

func (k Kind) String() string {
	switch k {
	case AvailJump:
		return "the available index jumped"
	case HeadRange:
		return "an available entry lies outside the descriptor table"
	case HeadBusy:
		return "an available entry is in flight already"
	case NextRange:
		return "a next index lies outside the table"
	case Loop:
		return "a descriptor chain loops"
	case TooLong:
		return "a descriptor chain is longer than the limit"
	case TooBig:
		return "a descriptor chain has more than 4 GiB"
	case Empty:
		return "a buffer is empty"
	case Order:
		return "a readable buffer follows a writable one"
	case Address:
		return "a buffer is not in guest memory"
	case IndirectOff:
		return "an indirect descriptor was not negotiated"
	case IndirectNext:
		return "an indirect descriptor has a next one"
	case IndirectNested:
		return "an indirect table holds another"
	case IndirectLength:
		return "an indirect table's length is wrong"
	case InflightRecord:
		return "the record of requests in flight contradicts itself"
	}
	return fmt.Sprintf("Kind(%#x)", uint8(k))
}

// A Violation is a rule that the driver broke: the ring it came from has failed.
type Violation struct {
	Kind  Kind
	Head  int    // the chain's first descriptor; -1: not in a chain
	Index int    // the descriptor or entry at fault, in its table
	Value uint64 // what stood there: an index, a length, a number of descriptors
	Err   error  // what the memory map said, for Address
}

func (v *Violation) Error() string {
	s := "virtqueue: " + v.Kind.String()
	if v.Head >= 0 {
		s += fmt.Sprintf(", chain %d", v.Head)
	}
	s += fmt.Sprintf(", at %d: %#x", v.Index, v.Value)
	if v.Err != nil {
		s += ": " + v.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (v *Violation) Unwrap() error { return v.Err }
