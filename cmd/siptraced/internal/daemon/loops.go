package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/loop"
)

// loops is what keeps messages from going round and from being stored twice, and
// the goroutines that it needs.
type loops struct {
	detector *loop.Detector
	streams  *loop.Streams
	received string // the file of streams; "": none
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// Files beside the spool, or beside the rules where the spool is in a cluster.
const (
	instanceFile = "instance"
	sentFile     = "mirrored"
	receivedFile = "received"
)

// placeOf is where an instance with these settings keeps a file; "" if it has no
// place.
func placeOf(cfg *config.Config, name string) string {
	switch {
	case cfg.Spool.NATS == "":
		return filepath.Join(cfg.Spool.Dir, name)
	case cfg.Rules.StateFile != "":
		return filepath.Join(filepath.Dir(cfg.Rules.StateFile), "siptraced."+name)
	}
	return ""
}

// openLoops finds out who this instance is, and has the pipeline look for loops.
func (d *daemon) openLoops(cfg *config.Config) error {
	l := &d.loops
	id := loop.NewID()
	if file := placeOf(cfg, instanceFile); file != "" {
		var made bool
		var err error
		if id, made, err = loop.OpenID(file); err != nil {
			return err
		}
		if made {
			d.log.Info("this instance has a new id, by which it knows messages that come back", "id", id.String(), "file", file)
		}
	}
	l.detector = loop.New(id, placeOf(cfg, sentFile), d.counters, d.log)
	l.streams, l.received = loop.NewStreams(), placeOf(cfg, receivedFile)
	if l.received != "" {
		if err := l.streams.Load(l.received); err != nil {
			d.log.Warn("what was received before the restart is not known: what is sent again is stored again", "err", fmt.Errorf("%s: %w", l.received, err))
		}
	}
	d.spool.Refused = d.pipeline.Refused
	d.pipeline.Loops, d.pipeline.Streams = l.detector, l.streams
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.running.Go(func() { l.detector.Run(ctx, d.pipeline.Resume) })
	if l.received != "" {
		l.running.Go(func() { l.streams.Keep(ctx, d.spool, l.received, d.log) })
	}
	return nil
}

// stop hands on what is parked. Nothing comes in any more.
func (l *loops) stop() {
	if l.cancel != nil {
		l.cancel()
	}
	l.running.Wait()
}

// saveReceived writes down what was received, once all of it is in the spool.
func (d *daemon) saveReceived(ctx context.Context) {
	if d.loops.received == "" {
		return
	}
	if err := d.loops.streams.Save(ctx, d.spool, d.loops.received); err != nil {
		d.log.Error("writing down what was received", "file", d.loops.received, "err", err)
	}
}

// saveSent writes down what was mirrored, once the mirrors have ended.
func (d *daemon) saveSent() {
	if d.loops.detector == nil {
		return
	}
	if err := d.loops.detector.Close(); err != nil {
		d.log.Error("writing down what was mirrored", "err", err)
	}
}
