// The user's camera and microphone. The browser is asked for a device only when it is turned on. Turning the camera off
// releases it, so that its light goes out; turning the microphone off mutes it.

// Small, because each browser of a mesh encodes its picture for each of the others.
const PICTURE = { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 24, max: 30 } };

export class LocalMedia extends EventTarget {
  /** Both tracks belong to this stream, so that sound and picture stay in sync. */
  stream = new MediaStream();
  #wanted = { audio: false, video: false };

  /** Which devices are on. */
  get state() {
    return { audio: this.#isOn("audio"), video: this.#isOn("video") };
  }

  track(kind) {
    return this.stream.getTracks().find((track) => track.kind === kind) ?? null;
  }

  /**
   * Turns a device on or off. Rejects with the browser's error if it is not available.
   * @param {"audio" | "video"} kind
   * @param {boolean} isOn
   */
  async turn(kind, isOn) {
    this.#wanted[kind] = isOn;
    const track = this.track(kind);
    if (!isOn) {
      if (kind === "video") this.#drop("video");
      else if (track) track.enabled = false;
    } else if (track) {
      track.enabled = true;
    } else {
      await this.#acquire(kind);
    }
    this.dispatchEvent(new CustomEvent("change", { detail: kind }));
  }

  /** Releases both devices. */
  stop() {
    this.#wanted = { audio: false, video: false };
    for (const kind of ["audio", "video"]) this.#drop(kind);
  }

  #isOn(kind) {
    return this.track(kind)?.enabled ?? false;
  }

  async #acquire(kind) {
    // Without a secure context there is no mediaDevices.
    if (!navigator.mediaDevices)
      throw new DOMException("This page was not loaded over a secure connection.", "NotAllowedError");
    const options = kind === "audio" ? { audio: true } : { video: PICTURE };
    const taken = await navigator.mediaDevices.getUserMedia(options);
    const [track] = taken.getTracks();
    // Turned off, or turned on twice, while the browser asked the user.
    if (!this.#wanted[kind] || this.track(kind)) {
      track.stop();
      return;
    }
    this.stream.addTrack(track);
    track.addEventListener("ended", () => {
      // Unplugged, or no longer allowed.
      if (this.track(kind) !== track) return;
      this.#drop(kind);
      this.dispatchEvent(new CustomEvent("change", { detail: kind }));
    });
  }

  #drop(kind) {
    const track = this.track(kind);
    if (!track) return;
    this.stream.removeTrack(track);
    track.stop();
  }
}

/** Explains to the user why a camera or microphone is not available. */
export function mediaProblem(kind, error) {
  const device = kind === "audio" ? "microphone" : "camera";
  const still = "You can still write, and see and hear others.";
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return `Your browser does not allow this page to use the ${device}. ${still}`;
    case "NotFoundError":
    case "OverconstrainedError":
      return `No ${device} found. ${still}`;
    case "NotReadableError":
    case "AbortError":
      return `The ${device} is in use by another program.`;
    default:
      return `The ${device} could not be turned on: ${error.message}`;
  }
}
