package vring

// A Point is a moment in the life of a recorded request at which the shared memory is
// in a state of its own: what a process that ends there leaves is what the next one has
// to go on from.
type Point uint8

// The points, in their order. Those from PointLinked on are reached once for each
// request, PointPublished and PointSettled once for each batch.
const (
	PointTaken     Point = iota + 1 // its chain has been read, and nothing is marked
	PointMarked                     // it is marked as in flight
	PointAnswered                   // its answer is in its buffers
	PointLinked                     // its entry names the batch's former head
	PointStaged                     // it is in the batch and in the used ring, of which the driver does not know
	PointPublished                  // used.idx has moved
	PointCleared                    // its mark is off
	PointSettled                    // the record has used.idx; the driver has not been notified
)

// String is the point's name.
func (p Point) String() string {
	names := [...]string{"", "taken", "marked", "answered", "linked", "staged", "published", "cleared", "settled"}
	if int(p) < len(names) {
		return names[p]
	}
	return "unknown"
}
