package mirror

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"siptraced/cmd/siptraced/internal/datagram"
	"siptraced/cmd/siptraced/internal/loop"
)

// lastQuestion is how long a socket that was never asked is kept, once it sent its
// last datagram: a mirror that ends at once would not be known as one.
const lastQuestion = 300 * time.Millisecond

// answering answers the questions of a receiver whether we are a mirror.
type answering struct {
	conn  *datagram.Socket
	asked atomic.Bool
	done  sync.WaitGroup
}

func answer(c *datagram.Socket) *answering {
	a := &answering{conn: c}
	a.done.Go(a.run)
	return a
}

func (a *answering) run() {
	r := a.conn.Reader(1, 64)
	var out []byte
	for {
		_, err := r.Read()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Any other error is ICMP's, of a datagram before.
		if err != nil {
			continue
		}
		if question, _ := r.Datagram(0); loop.IsQuestion(question) {
			out = loop.AppendAnswer(out[:0], question)
			_, _ = a.conn.Write(out) // the receiver asks again
			a.asked.Store(true)
		}
	}
}

// close closes the socket; sent is when a datagram that has no path left last.
func (a *answering) close(sent time.Time) error {
	for time.Since(sent) < lastQuestion && !a.asked.Load() {
		time.Sleep(10 * time.Millisecond)
	}
	err := a.conn.Close()
	a.done.Wait()
	return err
}
