/* The numbers of protocol 1. The same as metalmark.wire.guest, which has the meanings; a test compares the two. */
#ifndef METALMARK_WIRE_H
#define METALMARK_WIRE_H

enum {
    PROTOCOL = 1,
    HEADER_BYTES = 9,
    MAX_PAYLOAD_BYTES = 1024 * 1024,
    INPUT_WINDOW_BYTES = 64 * 1024,
};

enum kind {
    KIND_SETUP = 0x01,
    KIND_EXEC = 0x02,
    KIND_INPUT = 0x03,
    KIND_SIGNAL = 0x04,
    KIND_GET = 0x05,
    KIND_PUT = 0x06,
    KIND_CLOCK = 0x07,
    KIND_POWEROFF = 0x08,
    KIND_HELLO = 0x81,
    KIND_READY = 0x82,
    KIND_STARTED = 0x83,
    KIND_STDOUT = 0x84,
    KIND_STDERR = 0x85,
    KIND_EXITED = 0x86,
    KIND_DATA = 0x87,
    KIND_DONE = 0x88,
    KIND_FAULT = 0x89,
    KIND_CREDIT = 0x8A,
    KIND_CLOCK_IS = 0x8B,
};

enum setup_tag {
    SETUP_ROOT = 1,
    SETUP_ROOT_TYPE = 2,
    SETUP_SCRATCH = 3,
    SETUP_HOSTNAME = 4,
    SETUP_REALTIME_NS = 5,
    SETUP_SEED = 6,
    SETUP_MEMORY_BYTES = 7,
    SETUP_PIDS = 8,
    SETUP_ADDRESS = 9,
    SETUP_GATEWAY = 10,
    SETUP_NAMESERVER = 11,
    SETUP_CGROUP_FD = 12,
};

enum exec_tag {
    EXEC_ARG = 1,
    EXEC_ENV = 2,
    EXEC_WORKDIR = 3,
    EXEC_USER = 4,
    EXEC_STDIN = 5,
    EXEC_HOLD = 6,
    EXEC_STREAM_BYTES = 7,
    EXEC_GRACE_MS = 8,
};

enum exit_tag {
    EXIT_ENDING = 1,
    EXIT_CODE = 2,
    EXIT_STARTED_NS = 3,
    EXIT_ENDED_NS = 4,
    EXIT_USER_US = 5,
    EXIT_SYSTEM_US = 6,
    EXIT_MEMORY_PEAK_BYTES = 7,
    EXIT_STDOUT_BYTES = 8,
    EXIT_STDERR_BYTES = 9,
    EXIT_MESSAGE = 10,
    EXIT_LEFT_KILLED = 11,
};

enum ending {
    ENDING_EXITED = 0,
    ENDING_SIGNALED = 1,
    ENDING_OUT_OF_MEMORY = 2,
    ENDING_NOT_FOUND = 3,
    ENDING_NOT_EXECUTABLE = 4,
    ENDING_UNKNOWN_USER = 5,
    ENDING_NO_WORKDIR = 6,
    ENDING_FAILED = 7,
};

enum signal_tag { SIGNAL_NUMBER = 1 };

enum get_tag { GET_PATTERN = 1, GET_WORKDIR = 2, GET_MAX_BYTES = 3, GET_MAX_FILES = 4 };

enum put_tag { PUT_FOLDER = 1 };

enum credit_tag { CREDIT_BYTES = 1 };

enum done_tag { DONE_FILES = 1, DONE_BYTES = 2, DONE_TRUNCATED = 3, DONE_MISSING = 4 };

enum hello_tag {
    HELLO_PROTOCOL = 1,
    HELLO_ARCHITECTURE = 2,
    HELLO_KERNEL = 3,
    HELLO_MONOTONIC_NS = 4,
    HELLO_CPUS = 5,
    HELLO_MEMORY_BYTES = 6,
    HELLO_AGENT = 7,
    HELLO_TIMER_HZ = 8,
};

enum ready_tag { READY_MONOTONIC_NS = 1, READY_MEMORY_MAX_BYTES = 2 };

enum clock_tag { CLOCK_MONOTONIC_NS = 1, CLOCK_REALTIME_NS = 2 };

enum fault_tag { FAULT_CODE = 1, FAULT_MESSAGE = 2 };

#endif
