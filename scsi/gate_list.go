package scsi

// taskList is a task set's list of tasks in flight on one lane, linked through
// taskSched.prev and .next. Only the lane's loop touches it.
type taskList struct{ head, tail *Task }

func (l *taskList) push(t *Task) {
	s := &t.sched
	s.prev, s.next = l.tail, nil
	if l.tail != nil {
		l.tail.sched.next = t
	} else {
		l.head = t
	}
	l.tail = t
}

func (l *taskList) remove(t *Task) {
	s := &t.sched
	if s.prev != nil {
		s.prev.sched.next = s.next
	} else {
		l.head = s.next
	}
	if s.next != nil {
		s.next.sched.prev = s.prev
	} else {
		l.tail = s.prev
	}
	s.prev, s.next = nil, nil
}

// taskQueue is a FIFO of tasks that wait for something, linked through
// taskSched.qprev and .qnext; a task is in one at a time at most. Who may touch
// it is said where one is declared.
type taskQueue struct{ head, tail *Task }

func (q *taskQueue) push(t *Task) {
	s := &t.sched
	s.qprev, s.qnext = q.tail, nil
	if q.tail != nil {
		q.tail.sched.qnext = t
	} else {
		q.head = t
	}
	q.tail = t
}

func (q *taskQueue) pushFront(t *Task) {
	s := &t.sched
	s.qprev, s.qnext = nil, q.head
	if q.head != nil {
		q.head.sched.qprev = t
	} else {
		q.tail = t
	}
	q.head = t
}

func (q *taskQueue) remove(t *Task) {
	s := &t.sched
	if s.qprev != nil {
		s.qprev.sched.qnext = s.qnext
	} else {
		q.head = s.qnext
	}
	if s.qnext != nil {
		s.qnext.sched.qprev = s.qprev
	} else {
		q.tail = s.qprev
	}
	s.qprev, s.qnext = nil, nil
}

func (q *taskQueue) pop() *Task {
	t := q.head
	if t != nil {
		q.remove(t)
	}
	return t
}
