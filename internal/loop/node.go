package loop

import "sync/atomic"

// Node is something that can be queued to a loop: by Post from any goroutine, by
// Defer on the loop itself. It is embedded in its owner and allocates nothing.
// It is in one queue at a time: to post or defer a node that is queued already is
// a bug of the caller (see Loop.Post); where several goroutines may want the same
// node handled, PostOnce sorts it out.
//
// A Node must not be copied.
type Node struct {
	next   *Node
	h      Handler
	queued atomic.Uint32
}

// Init sets who handles the node. It must not be queued.
func (n *Node) Init(h Handler) { n.h = h }

// Queued reports whether the node is queued at the moment. Only its owner, where
// nobody else posts it, can rely on the answer.
func (n *Node) Queued() bool { return n.queued.Load() != 0 }

// mailbox is a list that any goroutine may push to and one empties. Push is one
// compare-and-swap; the list is last in first out and turned round when taken.
type mailbox struct {
	head atomic.Pointer[Node]
}

func (m *mailbox) push(n *Node) {
	for {
		h := m.head.Load()
		n.next = h
		if m.head.CompareAndSwap(h, n) {
			return
		}
	}
}

func (m *mailbox) empty() bool { return m.head.Load() == nil }

// take empties the mailbox and returns its nodes in the order of their posting.
func (m *mailbox) take() (first *Node) {
	if m.empty() {
		return nil
	}
	for n := m.head.Swap(nil); n != nil; {
		next := n.next
		n.next = first
		first = n
		n = next
	}
	return first
}
