// One photo from the camera of the browser's machine; nothing is sent before the button is pressed.

export function setUpWebcam(find, take, fail) {
  const video = find("video");
  let stream = null;

  function close() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    find("camera").hidden = true;
    find("webcam").focus();
  }

  find("webcam").addEventListener("click", async () => {
    try {
      if (!navigator.mediaDevices) throw new Error("the browser gives the camera to https and 127.0.0.1 only");
      stream = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch (error) {
      fail(`The webcam cannot be opened: ${error.message}`);
      return;
    }
    video.srcObject = stream;
    find("camera").hidden = false;
    await video.play();
    find("shoot").focus();
  });

  find("shoot").addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => { close(); take(blob, "webcam"); }, "image/png");
  });
  find("close-camera").addEventListener("click", close);
}
