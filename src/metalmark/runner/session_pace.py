"""How often a session says something, and how long it waits for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SessionPace:
    """Times of a session, all in seconds."""

    answer_s: float = 30.0
    """For the answer to a message of ours, before the connection counts as dead."""
    end_answer_s: float = 120.0
    """The same for the end of a job, which a server answers when it has read the results."""
    beat_max_s: float = 10.0
    """Longest pause between signs of life; a sixth of the lease when that is less."""
    phase_s: float = 0.1
    """How long a job has to be in a phase before the server is told; `Phase.EXEC` is told at once."""
    again_s: float = 1.0
    """Pause before what a busy server did not take is said again."""
    upload_again_s: float = 5.0
    """Pause before an upload that broke goes on."""
    drain_s: float = 10.0
    """How long the end of a job waits for its live output to be taken."""
    public_beat_s: float = 0.5
    """Pause between heartbeats of the public messages. A cancellation comes with the answer to one, within a second."""
    public_ack_s: float = 5.0
    """For the acknowledgement of a result, before it is sent again; and of a heartbeat, before the next."""
    public_poll_s: int = 55
    """How long a server is asked to look for a job."""
    public_trial_poll_s: int = 10
    """The same while this version of the runner has to prove itself."""
    public_poll_margin_s: float = 30.0
    """How much later than that the answer may come."""
    offer_again_s: float = 3600.0
    """How long after an offer a server of public messages is not asked for another."""
