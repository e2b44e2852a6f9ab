package daemon

import (
	"context"
	"sync"
	"syscall"
	"time"
)

// closeGrace is how long the end may take after shutdown_timeout, or after a
// second signal: the disk gets what is in memory.
const closeGrace = 900 * time.Millisecond

// closeTimeout bounds how long remote calls in progress may take at the end.
const closeTimeout = 10 * time.Second

// stuckGrace is how long each step may take once closeGrace is over, where it waits
// for what can't be told to end: a disk that stands still.
const stuckGrace = 200 * time.Millisecond

// stop ends the stages in their order: listeners, readers, batches to the
// spool, sinks until the deadline, spool, remote control. A second signal is a
// deadline too.
func (d *daemon) stop() {
	var waiting sync.WaitGroup
	defer waiting.Wait() // after cancel
	ctx, cancel := context.WithTimeout(context.Background(), max(d.cfg.Load().ShutdownTimeout, time.Millisecond))
	defer cancel()
	hard, end := context.WithCancel(context.Background())
	defer end()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(closeGrace, end) })()
	waiting.Go(func() { d.awaitSignal(ctx, cancel) })
	if d.spool != nil {
		// The readers wait for the spool, and the spool for its engine.
		defer context.AfterFunc(ctx, d.spool.Abort)()
	}
	d.step(hard, "ingest", d.ingest != nil, func() { d.ingest.Close(ctx) })
	d.step(hard, "loops", true, d.loops.stop)
	if d.proxy != nil {
		d.proxy.close()
	}
	defer d.closeRPC(hard)
	d.step(hard, "rules", d.engine != nil, func() { d.engine.Close() })
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	if d.spool != nil {
		d.spool.Flush(ctx)
		d.step(hard, "received", true, func() { d.saveReceived(ctx) })
	}
	d.step(hard, "sinks", true, func() { d.stopSinks(ctx) })
	d.step(hard, "mirrored", true, d.saveSent)
	d.step(hard, "rejects", d.rejects != nil, func() {
		if err := d.rejects.Close(); err != nil {
			d.log.Error("closing the reject file", "err", err)
		}
	})
	if d.spool != nil {
		if err := d.spool.Close(hard); err != nil {
			d.log.Error("closing the spool", "err", err)
		}
		d.printCounters()
	}
}

// step does what is to be done, and leaves it behind if it is stuck when hard ended.
func (d *daemon) step(hard context.Context, name string, todo bool, do func()) {
	if !todo {
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		do()
	}()
	select {
	case <-ended:
		return
	case <-hard.Done():
	}
	select {
	case <-ended:
	case <-time.After(stuckGrace):
		d.log.Error("stopping: the disk does not answer, going on without it", "step", name)
	}
}

// stopSinks drains the sinks until ctx ends.
func (d *daemon) stopSinks(ctx context.Context) {
	d.mu.Lock()
	db := d.store
	d.mu.Unlock()
	var sinks sync.WaitGroup
	if db != nil {
		sinks.Go(func() {
			if err := db.Stop(ctx); err != nil {
				d.log.Error("closing the store", "err", err)
			}
		})
	}
	if d.mirrors != nil {
		sinks.Go(func() { d.mirrors.Stop(ctx) })
	}
	sinks.Wait()
}

// awaitSignal ends the wait when the operator insists.
func (d *daemon) awaitSignal(ctx context.Context, cancel context.CancelFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-d.signals:
			if s == syscall.SIGTERM || s == syscall.SIGINT {
				d.log.Warn("a second signal: ending at once, what waits stays in the spool", "signal", s.String())
				cancel()
				return
			}
		}
	}
}
