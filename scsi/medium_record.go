package scsi

import (
	"encoding/json"
	"fmt"
)

// mediumRecordName names the record of an operation that has the medium, in the
// unit's Memory: what the next process has to know to go on with it.
const mediumRecordName = "medium"

const mediumRecordVersion = 1

// mediumRecord is that record.
type mediumRecord struct {
	Version int `json:"version"`
	// Kind is one of the kinds below.
	Kind mediumKind `json:"kind"`
	// Stage and Pos (bytes) are where it is.
	Stage int   `json:"stage"`
	Pos   int64 `json:"pos"`
	// Count is the number of passes of an overwrite; Pattern is written in each
	// block, repeated, inverted in every second pass where Invert is set.
	Count   int    `json:"count,omitempty"`
	Invert  bool   `json:"invert,omitempty"`
	Pattern []byte `json:"pattern,omitempty"`
	// Thin: zeros are deallocated.
	Thin bool `json:"thin,omitempty"`
	// AUSE: the initiator may leave the state after a failure by SANITIZE with EXIT
	// FAILURE MODE (SBC-3 §5.30).
	AUSE bool `json:"AUSE,omitempty"`
	// Failed: it has ended with an error.
	Failed bool `json:"failed,omitempty"`
}

// mediumKind is what an operation is.
type mediumKind string

const (
	mediumOverwrite   mediumKind = "overwrite"
	mediumBlockErase  mediumKind = "block-erase"
	mediumCryptoErase mediumKind = "cryptographic-erase"
	mediumFormat      mediumKind = "format"
)

// what names the operation for people.
func (r *mediumRecord) what() string {
	switch r.Kind {
	case mediumOverwrite:
		return "SANITIZE OVERWRITE"
	case mediumBlockErase:
		return "SANITIZE BLOCK ERASE"
	case mediumCryptoErase:
		return "SANITIZE CRYPTOGRAPHIC ERASE"
	}
	return "FORMAT UNIT"
}

// busyASC goes with NOT READY, failedASC with MEDIUM ERROR.
func (r *mediumRecord) busyASC() ASC {
	if r.Kind == mediumFormat {
		return ASCFormatInProgress
	}
	return ASCSanitizeInProgress
}

func (r *mediumRecord) failedASC() ASC {
	if r.Kind == mediumFormat {
		return ASCFormatCommandFailed
	}
	return ASCSanitizeCommandFailed
}

// stages is what has to be done, in this order.
func (r *mediumRecord) stages() (s []mediumStage) {
	switch r.Kind {
	case mediumOverwrite:
		for range r.Count {
			s = append(s, stageWrite)
		}
	case mediumBlockErase:
		s = append(s, stageDeallocate)
	case mediumCryptoErase:
		s = append(s, stageRekey)
		if r.Thin {
			// What the new key makes of the old data is of use to nobody and
			// takes room.
			s = append(s, stageDeallocate)
		}
	case mediumFormat:
		switch {
		case r.Pattern != nil:
			s = append(s, stageWrite)
		case r.Thin:
			s = append(s, stageDeallocate)
		default:
			s = append(s, stageZero)
		}
	}
	return append(s, stagePurge)
}

// fill fills b, whole blocks, with what this stage writes.
func (r *mediumRecord) fill(b []byte, blockSize int) {
	if len(r.Pattern) == 0 {
		clear(b)
		return
	}
	x := byte(0)
	if r.Invert && r.Stage%2 == 1 {
		x = 0xff
	}
	for i := range b[:blockSize] {
		b[i] = r.Pattern[i%len(r.Pattern)] ^ x
	}
	for n := blockSize; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// encode makes the bytes to be saved.
func (r mediumRecord) encode() []byte {
	r.Version = mediumRecordVersion
	b, _ := json.Marshal(r) // cannot fail
	return b
}

// maxOverwrites is the largest OVERWRITE COUNT (SBC-3 §5.30).
const maxOverwrites = 31

// decodeMedium is the inverse of encode, for a disk of such blocks.
func decodeMedium(b []byte, blockSize int) (mediumRecord, error) {
	var r mediumRecord
	if err := decodeRecord(b, &r); err != nil {
		return mediumRecord{}, err
	}
	if r.Version != mediumRecordVersion {
		return mediumRecord{}, fmt.Errorf("version %d is not known", r.Version)
	}
	switch r.Kind {
	case mediumOverwrite:
		if r.Count < 1 || r.Count > maxOverwrites || len(r.Pattern) == 0 {
			return mediumRecord{}, fmt.Errorf("an overwrite of %d passes with %d bytes", r.Count, len(r.Pattern))
		}
	case mediumBlockErase, mediumCryptoErase, mediumFormat:
	default:
		return mediumRecord{}, fmt.Errorf("operation %q is not known", r.Kind)
	}
	if len(r.Pattern) > blockSize {
		return mediumRecord{}, fmt.Errorf("a pattern of %d bytes for blocks of %d", len(r.Pattern), blockSize)
	}
	if r.Stage < 0 || r.Stage > len(r.stages()) || r.Pos < 0 || r.Pos%int64(blockSize) != 0 {
		return mediumRecord{}, fmt.Errorf("stage %d at byte %d", r.Stage, r.Pos)
	}
	return r, nil
}
