package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"siptraced/cmd/siptraced/internal/config"
	"siptraced/cmd/siptraced/internal/replay"
)

func replayCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "replay FILE", Short: "put the rows of the reject file, or the messages of a capture, back in"}
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%w: name one file: a reject file, a pcap file, a stream of HEP3, or lines of JSON", errUsage)
		}
		return nil
	}
	src := sources(cmd)
	f := cmd.Flags()
	to := f.String("to", "", "TCP listener of the running siptraced, `host:port`; default: the one of the configuration")
	only := f.String("only", "", "leave out the other kind of messages: `KIND` is hep or sip")
	again := f.Bool("again", false, "send messages that siptraced has had from this file before as new ones")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *only != "" && *only != "hep" && *only != "sip" {
			return fmt.Errorf("%w: --only %s: want hep or sip", errUsage, *only)
		}
		cfg, err := config.Load(*src)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		bar, end := progress(args[0], cmd.ErrOrStderr())
		defer end()
		return replay.Run(ctx, replay.Options{Config: cfg, File: args[0], To: *to, Only: *only, Again: *again, Out: cmd.OutOrStdout(), Progress: bar})
	}
	return cmd
}

// progress is a bar over the bytes of a file, where out is a terminal; else nil.
func progress(file string, out io.Writer) (bar io.Writer, end func()) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, func() {}
	}
	if b := newBar(file, info.Size(), out); b != nil {
		return b, func() { _ = b.Finish() }
	}
	return nil, func() {}
}

// newBar is a bar over so many bytes, nil where out is no terminal.
func newBar(what string, size int64, out io.Writer) *progressbar.ProgressBar {
	terminal, is := out.(*os.File)
	if !is || !isatty.IsTerminal(terminal.Fd()) {
		return nil
	}
	return progressbar.NewOptions64(size, progressbar.OptionSetWriter(out), progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionSetDescription(what))
}
