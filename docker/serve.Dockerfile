# Serves a model of `detzoo export --format onnx` by HTTP, without TensorFlow. Build and run:
#
#   docker build -f docker/serve.Dockerfile -t detzoo-serve docker
#   docker run --rm -p 8080:8080 -v "$PWD/exported/model.onnx:/model.onnx:ro" detzoo-serve
FROM python:3.12-slim
RUN pip install --no-cache-dir "onnxruntime==1.*" "numpy==2.*" "pillow==13.*" "waitress==3.*"
COPY serve_onnx.py /app/serve_onnx.py
USER 1000
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:8080/health')"]
ENTRYPOINT ["python", "/app/serve_onnx.py"]
CMD ["/model.onnx"]
