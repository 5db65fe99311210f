package scsi

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"slices"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
)

// POPULATE TOKEN, WRITE USING TOKEN (SBC-3 §5.14, §5.48) and RECEIVE ROD TOKEN
// INFORMATION (SPC-4 §6.30): what Windows calls offloaded data transfer.
//
// A token stands for ranges of one LUN as the nexus sees it that asked for it; of the
// ROD types it is "access upon reference", the data are those of the moment of use. It
// is good for that nexus alone and while it sees that LUN: to any other it is unknown,
// also when it is known to the byte, which 256 random bits prevent. Writing by it needs
// all that READ and WRITE at both ends need then.

const (
	tokenLen      = 512
	tokenFieldLen = tokenLen - 8 // ROD TOKEN LENGTH

	rodAccessUponReference = 0x00010000
	rodZero                = 0xffff0001 // block device zero

	// maxTokens bounds the tokens of a nexus, maxTokenRanges the ranges of one.
	maxTokens      = 64
	maxTokenRanges = 128
	// maxTokenBytes is the most that a token stands for, and that is written by one
	// command.
	maxTokenBytes = 4 << 30
	// optimalTokenBytes takes well below the few seconds that initiators want to wait.
	optimalTokenBytes = 64 << 20
	// How long a token that nobody uses is good, seconds.
	tokenTimeout    = 60
	maxTokenTimeout = 600
)

// blockRange is a block device range descriptor (SBC-3 §5.14.3).
type blockRange struct {
	lba    uint64
	blocks uint32
}

// rodToken is a token that was given out. What it says never changes but for used, which
// copyList.mu guards.
type rodToken struct {
	b      [tokenLen]byte
	src    copyEnd // off is not used
	ranges []blockRange
	size   int64 // bytes
	// timeout after used (on the clock of loop.Now), ns.
	timeout, used int64
}

// decodeRanges decodes the block device range descriptors of n bytes at b[at:], the
// length of which stands at b[field:]. limit is the largest number of bytes with blocks
// of bs bytes. s has a Key where they are refused.
func decodeRanges(b []byte, field, at int, end uint64, bs, limit int64) (rs []blockRange, size int64, s Sense) {
	n := int(binary.BigEndian.Uint16(b[field:]))
	switch {
	case n > len(b)-at:
		return nil, 0, Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}
	case n < 16 || n%16 != 0:
		return nil, 0, InvalidParamField(field, 7)
	case n/16 > maxTokenRanges:
		return nil, 0, Sense{Key: IllegalRequest, ASC: ascTooManySegments}
	}
	for o := at; o < at+n; o += 16 {
		r := blockRange{binary.BigEndian.Uint64(b[o:]), binary.BigEndian.Uint32(b[o+8:])}
		if !inRange(r.lba, uint64(r.blocks), end) {
			return nil, 0, Sense{Key: IllegalRequest, ASC: ASCLBAOutOfRange}
		}
		if size += int64(r.blocks) * bs; size > limit {
			return nil, 0, InvalidParamField(o+8, 7)
		}
		for _, e := range rs {
			if overlap(e.lba, uint64(e.blocks), r.lba, uint64(r.blocks)) {
				return nil, 0, InvalidParamField(o, 7)
			}
		}
		rs = append(rs, r)
	}
	return rs, size, Sense{}
}

// tokenHead checks the header of n bytes that POPULATE TOKEN and WRITE USING TOKEN begin
// with: the list has as many bytes as it says.
func tokenHead(b []byte, n int) (list []byte, s Sense) {
	if len(b) < n || int(binary.BigEndian.Uint16(b))+2 > len(b) || int(binary.BigEndian.Uint16(b))+2 < n {
		return nil, Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}
	}
	return b[:int(binary.BigEndian.Uint16(b))+2], Sense{}
}

// populateParams is a decoded parameter list of POPULATE TOKEN.
type populateParams struct {
	timeout int64 // seconds
	ranges  []blockRange
	size    int64 // bytes
}

const populateHeaderLen = 16

// decodePopulate decodes b for a medium of end blocks of bs bytes.
func decodePopulate(b []byte, end uint64, bs int64) (p populateParams, s Sense) {
	b, s = tokenHead(b, populateHeaderLen)
	if s.Key != NoSense {
		return p, s
	}
	p.timeout = int64(binary.BigEndian.Uint32(b[4:]))
	if p.timeout > maxTokenTimeout {
		return p, InvalidParamField(4, 7)
	}
	if p.timeout == 0 {
		p.timeout = tokenTimeout
	}
	if rtv := b[2]&0x02 != 0; rtv && binary.BigEndian.Uint32(b[8:]) != rodAccessUponReference {
		return p, InvalidParamField(8, 7)
	}
	p.ranges, p.size, s = decodeRanges(b, 14, populateHeaderLen, end, bs, maxTokenBytes)
	return p, s
}

func runPopulateToken(t *Task) {
	n := lenCopyOut(t)
	if n == 0 {
		t.good()
		return
	}
	b, ok := t.copyList(n, populateHeaderLen+16*maxTokenRanges)
	if !ok {
		return
	}
	p, s := decodePopulate(b, t.unitBlocks(), t.blockLen())
	if s.Key != NoSense {
		t.check(s)
		return
	}
	tok := &rodToken{
		src: copyEnd{unit: t.unit, lun: t.lu.lun}, ranges: p.ranges, size: p.size,
		timeout: p.timeout * int64(time.Second), used: t.lane.loop.Now(),
	}
	tok.fill(&t.unit.conf)
	l := &t.nexus().copies
	e := &copyEntry{unit: t.unit, sa: t.CDB[1] & 0x1f, id: listID4(t), named: true, status: copyGood, bytes: p.size, token: tok}
	if s, full := l.begin(e); s.Key != NoSense {
		t.check(s)
		return
	} else if full {
		t.finish(StatusTaskSetFull)
		return
	}
	if !l.addToken(tok) {
		l.forget(e)
		t.check(Sense{Key: IllegalRequest, ASC: ascNoRoomForToken})
		return
	}
	t.good()
}

// listID4 is the LIST IDENTIFIER of the CDBs of POPULATE TOKEN and WRITE USING TOKEN.
func listID4(t *Task) uint32 { return binary.BigEndian.Uint32(t.CDB[6:]) }

// fill makes the token's bytes (SPC-4 §5.17.6.4).
func (k *rodToken) fill(c *UnitConfig) {
	b := k.b[:]
	binary.BigEndian.PutUint32(b, rodAccessUponReference)
	binary.BigEndian.PutUint16(b[6:], tokenFieldLen)
	rand.Read(b[8:16]) // COPY MANAGER ROD TOKEN IDENTIFIER; never fails
	// CREATOR LOGICAL UNIT DESCRIPTOR.
	d := b[16:48]
	d[0], d[4], d[5], d[7] = copyTargetIdent, codeBinary, assocUnit|designatorNAA, 8
	binary.BigEndian.PutUint64(d[8:], c.NAA)
	d[29], d[30], d[31] = byte(c.BlockSize>>16), byte(c.BlockSize>>8), byte(c.BlockSize)
	binary.BigEndian.PutUint64(b[56:], uint64(k.size)) // NUMBER OF BYTES REPRESENTED
	// Device type specific data: block length, block lengths per physical block.
	binary.BigEndian.PutUint32(b[96:], uint32(c.BlockSize))
	rand.Read(b[256:288]) // EXTENDED ROD TOKEN DATA
}

// addToken enters k; false: there are as many as there may be, none too old.
func (l *copyList) addToken(k *rodToken) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = slices.DeleteFunc(l.tokens, func(o *rodToken) bool { return o.expired(k.used) })
	if len(l.tokens) >= maxTokens {
		return false
	}
	l.tokens = append(l.tokens, k)
	return true
}

// expired reports whether k is too old at time now.
func (k *rodToken) expired(now int64) bool { return now-k.used > k.timeout }

// dropToken forgets k. mu is held.
func (l *copyList) dropToken(k *rodToken) {
	if i := slices.Index(l.tokens, k); i >= 0 {
		l.tokens = slices.Delete(l.tokens, i, i+1)
	}
}

// takeToken finds the token b among those of the nexus that sees luns, as used now.
func (l *copyList) takeToken(b []byte, luns []Mapping, now int64) (*rodToken, ASC) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.tokens {
		if subtle.ConstantTimeCompare(k.b[:], b) != 1 {
			continue
		}
		if k.expired(now) {
			l.dropToken(k)
			return nil, ascTokenExpired
		}
		if !slices.ContainsFunc(luns, func(m Mapping) bool { return m.LUN == k.src.lun && m.Unit == k.src.unit }) {
			l.dropToken(k)
			return nil, ascTokenCancelled
		}
		k.used = now
		return k, 0
	}
	return nil, ascTokenUnknown
}

// writeTokenParams is a decoded parameter list of WRITE USING TOKEN.
type writeTokenParams struct {
	immed, del bool
	offset     uint64 // blocks
	token      []byte
	zero       bool
	ranges     []blockRange
	size       int64 // bytes
}

const writeTokenHeaderLen = 536

// decodeWriteToken decodes b for a medium of end blocks of bs bytes.
func decodeWriteToken(b []byte, end uint64, bs int64) (p writeTokenParams, s Sense) {
	b, s = tokenHead(b, writeTokenHeaderLen)
	if s.Key != NoSense {
		return p, s
	}
	p.immed, p.del = b[2]&0x01 != 0, b[2]&0x02 != 0
	p.offset = binary.BigEndian.Uint64(b[8:])
	p.token = b[16 : 16+tokenLen]
	if p.ranges, p.size, s = decodeRanges(b, 534, writeTokenHeaderLen, end, bs, maxTokenBytes); s.Key != NoSense {
		return p, s
	}
	if binary.BigEndian.Uint16(p.token[6:]) != tokenFieldLen {
		return p, Sense{Key: IllegalRequest, ASC: ascTokenLength}
	}
	switch binary.BigEndian.Uint32(p.token) {
	case rodZero:
		p.zero = allZero(p.token[8:])
		if !p.zero {
			return p, Sense{Key: IllegalRequest, ASC: ascTokenCorrupt}
		}
	case rodAccessUponReference:
	default:
		return p, Sense{Key: IllegalRequest, ASC: ascTokenUnsupported}
	}
	return p, Sense{}
}

func runWriteUsingToken(t *Task) {
	n := lenCopyOut(t)
	if n == 0 {
		t.good()
		return
	}
	if !t.lu.mediumReady(t, copyMoveRow) {
		return
	}
	b, ok := t.copyList(n, writeTokenHeaderLen+16*maxTokenRanges)
	if !ok {
		return
	}
	p, s := decodeWriteToken(b, t.unitBlocks(), t.blockLen())
	if s.Key != NoSense {
		t.check(s)
		return
	}
	e := &copyEntry{sa: t.CDB[1] & 0x1f, id: listID4(t), named: true}
	dst := copyEnd{unit: t.unit, lun: t.lu.lun}
	var k *rodToken
	if !p.zero {
		var asc ASC
		l := &t.nexus().copies
		if k, asc = l.takeToken(p.token, t.nexus().LUNs(), t.lane.loop.Now()); k == nil {
			t.check(Sense{Key: IllegalRequest, ASC: asc})
			return
		}
		if p.del {
			e.deletes = k
		}
	}
	ranges, s := p.resolve(k, dst)
	if s.Key != NoSense {
		t.check(s)
		return
	}
	t.startCopy(e, ranges, p.immed)
}

// resolve pairs the ranges of token k (nil: zeros) with those of the list.
func (p *writeTokenParams) resolve(k *rodToken, dst copyEnd) (rs []copyRange, s Sense) {
	db := int64(dst.unit.blockSize)
	if k == nil {
		for _, r := range p.ranges {
			rs = append(rs, copyRange{dst: dst.at(int64(r.lba) * db), n: int64(r.blocks) * db})
		}
		return rs, Sense{}
	}
	if p.offset > uint64(k.size/db) || p.size > k.size-int64(p.offset)*db {
		return nil, InvalidParamField(8, 7)
	}
	sb := int64(k.src.unit.blockSize)
	skip := int64(p.offset) * db
	i := 0
	for _, d := range p.ranges {
		for at, left := int64(d.lba)*db, int64(d.blocks)*db; left > 0; {
			r := k.ranges[i]
			have := int64(r.blocks)*sb - skip
			if have <= 0 {
				skip -= int64(r.blocks) * sb
				i++
				continue
			}
			n := min(have, left)
			from := int64(r.lba)*sb + skip
			if from%sb != 0 || n%sb != 0 || at%db != 0 || n%db != 0 {
				// Blocks of different lengths that do not meet.
				return nil, InvalidParamField(8, 7)
			}
			rs = append(rs, copyRange{src: k.src.at(from), dst: dst.at(at), n: n})
			skip += n
			at += n
			left -= n
		}
	}
	return rs, Sense{}
}

// copyInfoHead is the length of what RECEIVE COPY STATUS(LID4) and RECEIVE ROD TOKEN
// INFORMATION have in common.
const copyInfoHead = 32

// copyInfo answers with the state of the copy that the CDB names, with its token where
// asked for.
func (t *Task) copyInfo(tokens bool) {
	b := t.scratch(copyInfoHead + MaxSense + 4 + 2 + tokenLen)
	clear(b)
	n := copyInfoHead
	if !t.withCopy(binary.BigEndian.Uint32(t.CDB[2:]), func(e *copyEntry) {
		b[4] = e.sa
		b[5] = byte(e.status)
		binary.BigEndian.PutUint32(b[8:], 0xfffffffe) // ESTIMATED STATUS UPDATE DELAY: none
		if e.status.running() {
			binary.BigEndian.PutUint32(b[8:], 200) // ms
		}
		if e.fail.Key != NoSense {
			b[12] = byte(StatusCheckCondition)
			k := e.fail.Encode(b[n:], t.unit.dSense.Load())
			k = (k + 3) &^ 3
			b[13], b[14] = byte(k), byte(k)
			n += k
		}
		b[15] = 0xf1 // TRANSFER COUNT UNITS: logical blocks
		binary.BigEndian.PutUint64(b[16:], uint64(e.bytes)/uint64(t.unit.blockSize))
		binary.BigEndian.PutUint16(b[24:], e.segments)
		if tokens {
			if e.token != nil {
				binary.BigEndian.PutUint32(b[n:], 2+tokenLen)
				copy(b[n+6:], e.token.b[:])
				n += 2 + tokenLen
			}
			n += 4
		}
	}) {
		return
	}
	binary.BigEndian.PutUint32(b, uint32(n-4))
	t.reply(b[:n], lenBytesAx4(t))
}

// runCopyStatus4 is RECEIVE COPY STATUS(LID4), runTokenInfo RECEIVE ROD TOKEN
// INFORMATION.
func runCopyStatus4(t *Task) { t.copyInfo(false) }
func runTokenInfo(t *Task)   { t.copyInfo(true) }

// runCopyAbort is COPY OPERATION ABORT (SPC-4 §6.3).
func runCopyAbort(t *Task) {
	if t.withCopy(binary.BigEndian.Uint32(t.CDB[2:]), func(e *copyEntry) {
		if e.op != nil && !e.stopped {
			e.stopped = true
			e.op.lane.loop.Post(&e.op.stop)
		}
	}) {
		t.good()
	}
}

// copyStop is a copyOp as the handler of its node.
type copyStop copyOp

// Handle ends the copy: COPY OPERATION ABORT.
func (s *copyStop) Handle(*loop.Node) {
	c := (*copyOp)(s)
	if !c.over {
		c.failed(Sense{Key: AbortedCommand, ASC: ascProcessTerminated})
		c.cancel()
	}
}
