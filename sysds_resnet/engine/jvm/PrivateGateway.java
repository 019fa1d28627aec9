import java.io.DataInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.Timer;
import java.util.TimerTask;
import py4j.Gateway;
import py4j.GatewayConnection;

/**
 * py4j's gateway at a Unix-domain socket, in place of its own at a TCP port.
 *
 * Whoever can connect to a TCP port of py4j can fill the heap before it asks for a token, since it reads lines of any
 * length. The file system lets only the user who owns the socket's folder connect to this socket, and a connection is
 * passed on to py4j once it has sent the token, which has a fixed number of bytes, within a limited time.
 *
 * When it is ready, it prints the token in hexadecimal digits. It ends when its standard input does, and so with the
 * process that started it. process.py has Janino compile it at start-up, so it keeps to the Java that Janino accepts.
 */
public class PrivateGateway {
    private static final int TOKEN_BYTES = 32;
    private static final long TOKEN_MILLISECONDS = 5000;

    /** Takes one argument, the path at which the socket is made. */
    public static void main(String[] arguments) throws Exception {
        final ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        server.bind(UnixDomainSocketAddress.of(arguments[0]));
        final byte[] token = new byte[TOKEN_BYTES];
        new SecureRandom().nextBytes(token);
        final Gateway gateway = new Gateway(null);
        gateway.startup();
        Thread accepting = new Thread("gateway") {
            public void run() {
                accept(server, gateway, token);
            }
        };
        accepting.setDaemon(true);
        accepting.start();
        StringBuilder digits = new StringBuilder();
        for (int i = 0; i < token.length; i++)
            digits.append(String.format("%02x", new Object[] {Byte.valueOf(token[i])}));
        System.out.println(digits);
        while (System.in.read() >= 0)
            ; // nothing is ever sent
        Runtime.getRuntime().halt(0);
    }

    private static void accept(ServerSocketChannel server, final Gateway gateway, final byte[] token) {
        final Timer timer = new Timer("gateway-timer", true);
        while (true) {
            try {
                final SocketChannel channel = server.accept();
                // Operators share a thread pool only if their thread's name contains "main"; otherwise each starts
                // and drops one of its own, and a training step takes three times as long.
                // https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/util/CommonThreadPool.java
                Thread thread = new Thread("main") {
                    public void run() {
                        serve(channel, gateway, token, timer);
                    }
                };
                thread.setDaemon(true);
                thread.start();
            } catch (IOException error) {
                if (!server.isOpen())
                    return;
            }
        }
    }

    private static void serve(final SocketChannel channel, Gateway gateway, byte[] token, Timer timer) {
        TimerTask giveUp = new TimerTask() {
            public void run() {
                close(channel);
            }
        };
        timer.schedule(giveUp, TOKEN_MILLISECONDS);
        try {
            ChannelSocket socket = new ChannelSocket(channel);
            byte[] sent = new byte[TOKEN_BYTES];
            new DataInputStream(socket.getInputStream()).readFully(sent);
            if (giveUp.cancel() && MessageDigest.isEqual(sent, token))
                new GatewayConnection(gateway, socket, null, null, new ArrayList()).run();
        } catch (IOException error) {
            // the client went before it sent the whole token
        } finally {
            giveUp.cancel();
            close(channel);
        }
    }

    private static void close(SocketChannel channel) {
        try {
            channel.close();
        } catch (IOException error) {
            // the connection is gone all the same
        }
    }

    /** A socket, as py4j needs one, that reads from and writes to a channel. */
    private static class ChannelSocket extends Socket {
        private final SocketChannel channel;

        ChannelSocket(SocketChannel channel) {
            this.channel = channel;
        }

        public InputStream getInputStream() {
            return Channels.newInputStream(channel);
        }

        public OutputStream getOutputStream() {
            return Channels.newOutputStream(channel);
        }

        public void setSoLinger(boolean on, int seconds) {
            // the option exists for TCP only
        }

        public void close() throws IOException {
            channel.close();
        }
    }
}
