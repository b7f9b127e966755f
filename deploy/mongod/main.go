// Command mongod is what the tests use where no MongoDB is to be had: FerretDB on SQLite, behind
// a proxy that lets one command through at a time.
//
// FerretDB's updates read, change and write back without a lock, so commands of two connections
// would lose each other's changes. A MongoDB server's single-document commands are atomic; so are
// those of this program.
//
// It prints its URL on standard output once it can be used, and ends when it is told to (SIGTERM)
// or, with -with-parent, when its standard input is closed: a test run that was killed leaves
// nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to serve on")
	data := flag.String("data", "", "directory of the databases")
	withParent := flag.Bool("with-parent", false, "end when standard input is closed")
	flag.Parse()
	if *data == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if *withParent {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	if err := run(ctx, *listen, *data); err != nil {
		log.Fatal(err)
	}
}

// errorsOnly logs errors. Unlike a TextHandler it does nothing for what is not logged.
type errorsOnly struct{ slog.Handler }

func (h errorsOnly) WithAttrs([]slog.Attr) slog.Handler { return h }

func run(ctx context.Context, address, data string) error {
	debug.SetGCPercent(400)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	sockets, err := os.MkdirTemp("", "mongod")
	if err != nil {
		return err
	}
	defer os.RemoveAll(sockets)
	socket := filepath.Join(sockets, "s")
	backend, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: socket},
		Logger:    slog.New(errorsOnly{slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})}),
		Handler:   "sqlite",
		SQLiteURL: "file:" + filepath.ToSlash(data) + "/?_pragma=synchronous(off)",
	})
	if err != nil {
		return err
	}

	var running sync.WaitGroup
	running.Add(1)
	failed := make(chan error, 1)
	go func() {
		defer running.Done()
		failed <- backend.Run(ctx)
		listener.Close()
	}()
	go func() {
		<-ctx.Done()
		listener.Close()
	}()
	backend.MongoDBURI() // returns once the backend listens
	fmt.Printf("mongodb://%s/\n", listener.Addr())

	proxy := &proxy{backend: socket}
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			return err
		}
		go proxy.serve(client)
	}
	running.Wait()
	return <-failed
}
